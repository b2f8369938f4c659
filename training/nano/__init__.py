"""How the parts of the built-in model beside its transformer are trained."""
