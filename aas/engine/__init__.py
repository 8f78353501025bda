"""What runs a stage over many items, on this machine; what a stage is says stage.py."""
