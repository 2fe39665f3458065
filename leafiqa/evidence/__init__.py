"""A teacher's evidence: raw judgments as JSON lines, and how far each can be trusted."""
