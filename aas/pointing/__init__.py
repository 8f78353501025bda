"""From a phrase's map to a prompt, and from the prompt to the phrase's mask."""
