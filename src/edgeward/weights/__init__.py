"""Every tensor once: a content-addressed, memory-mapped store that serving sessions borrow from.

store = WeightStore(folder)
packed = pack(Path("model.onnx"), store)     # optimised once per machine
with Session(packed, store) as session:      # milliseconds, no copy of the weights
    outputs = session.run({"images": batch})
"""
