"""From one file of weights to another: single files, 8 bits, differences as LoRAs, and what they take."""
