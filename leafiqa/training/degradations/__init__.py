"""Ways to spoil a picture by known degrees: evidence that needs no teacher."""
