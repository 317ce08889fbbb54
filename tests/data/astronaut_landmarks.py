"""Makes astronaut_landmarks.json: what the mediapipe package sees in scikit-image's portrait.

Run it where the packages mediapipe and scikit-image are installed:

    python astronaut_landmarks.py face_landmarker.task astronaut_landmarks.json
"""

import json
import sys
from pathlib import Path

import mediapipe
import numpy as np
from mediapipe.tasks.python import BaseOptions, vision
from skimage import data

model, output = sys.argv[1:]
options = vision.FaceLandmarkerOptions(
    base_options=BaseOptions(model_asset_path=model), output_face_blendshapes=True
)
picture = data.astronaut()
image = mediapipe.Image(mediapipe.ImageFormat.SRGB, np.ascontiguousarray(picture))
found = vision.FaceLandmarker.create_from_options(options).detect(image)
height, width = picture.shape[:2]
points = [[round(p.x * width, 2), round(p.y * height, 2)] for p in found.face_landmarks[0]]
scores = {c.category_name: round(c.score, 3) for c in found.face_blendshapes[0]}
Path(output).write_text(
    json.dumps({"mediapipe": mediapipe.__version__, "points": points, "scores": scores}) + "\n"
)
