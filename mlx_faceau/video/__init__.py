"""From images and videos to faces: decoding, detection, alignment, tracking."""
