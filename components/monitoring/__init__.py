"""Are new images like those that a registered model was trained on?"""
