"""Around the corner: views from moved cameras whose holes the model fills in both streams, and scenes that grow so."""
