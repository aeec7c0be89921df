"""What every step shares: settings, artifacts, errors, progress."""
