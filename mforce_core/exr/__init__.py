"""OpenEXR files, whatever is in them."""
