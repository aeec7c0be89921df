"""What is measured of images before they are used: statistics, near-duplicates, alignment."""
