"""Many answers written side by side, each as far as it is, with steps that a GPU replays as one graph."""
