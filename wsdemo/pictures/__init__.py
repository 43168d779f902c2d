"""Pictures for print: the space-time diagram, and those of what the lessons measure."""
