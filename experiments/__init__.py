"""The contest: DiER beside what else a user could take, at one budget. Run from a checkout; in no wheel and no image."""
