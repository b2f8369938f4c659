"""Pictures made from depth: how real they look, whether they show what was asked for, how they follow the depth."""
