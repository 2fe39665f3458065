"""The LEAF-style recipe: teacher evidence in, a student's weights out."""
