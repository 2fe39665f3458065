"""Teachers: whatever can judge images, and the evidence that comes of asking it."""
