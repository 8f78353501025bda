"""`aas serve`: the app in a browser. What it does is plain Python; `app.py` alone knows gradio."""
