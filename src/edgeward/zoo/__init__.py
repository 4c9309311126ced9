"""Small reference networks, readers for the files of pretrained ones, and their export to ONNX."""
