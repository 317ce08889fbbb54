"""Where labels come from: OpenFace, pyfaceau, functions of the user's."""
