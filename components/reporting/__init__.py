"""What the report step is made of: reading the artifacts, drawing, wording, and the page."""
