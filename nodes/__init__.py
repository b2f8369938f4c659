"""ComfyUI nodes. The only package here that imports ComfyUI, and only ComfyUI imports it."""
