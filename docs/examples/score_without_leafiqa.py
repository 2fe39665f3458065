"""Score pictures with an exported student. Needs onnxruntime and pillow only.

leafiqa export leaf -o leaf.onnx
python score_without_leafiqa.py leaf.onnx PICTURE...
"""

import sys

import numpy as np
import onnxruntime
from PIL import Image, ImageOps

session = onnxruntime.InferenceSession(sys.argv[1], providers=["CPUExecutionProvider"])
for path in sys.argv[2:]:
    with Image.open(path) as picture:
        pixels = np.asarray(ImageOps.exif_transpose(picture).convert("RGB"))
    (score,) = session.run(["score"], {"image": pixels[None]})[0]
    print(f"{score:.4f} {path}")
