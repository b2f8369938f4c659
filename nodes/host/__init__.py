"""Everything that speaks ComfyUI's internals. Each module says which of core's interfaces it relies on.

=================  =====================================================================
node               the base of the nodes; shared_inputs: inputs that several nodes have
images             IMAGE and MASK tensors; image_fit, restoring: to the canvas and back
geometry           raw depth between nodes; depth_pictures, depth_files: how it leaves
point_clouds       PLY files and the 3D viewer; views: frames of a camera move
joint_latent       LATENTs with two streams; latent_merge, depth_latent: what makes them
joint_model        the MODEL; comfy_transformer, noise_levels: its network, its schedule
model_loader       MODEL from a checkpoint; weights: its tensors; nano_parts: CLIP and VAE
core_sampler       runs of core's samplers; sampler_wrappers: what surrounds every run
correction         measurements in every step; live_preview: both streams while sampling
=================  =====================================================================
"""
