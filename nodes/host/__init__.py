"""Everything that speaks ComfyUI's internals: models, samplers, latents and files as ComfyUI holds them."""
