"""What to say where a package of an extra is not installed."""

# What pip installs for each extra, wherever this library came from.
PACKAGES = {
    "download": "huggingface_hub",
    "hub": "huggingface_hub",
    "tensorboard": "tensorboard",
    "export": "onnx onnxscript onnxruntime",
    "las": "lazrs",
    "stream": "obstore huggingface_hub",
    "triton": "triton",
}


class MissingExtraError(ImportError):
    """A package that only an extra brings is not installed; the message says how to get it."""

    def __init__(self, what: str, package: str, extra: str):
        super().__init__(f"{what} needs {package}: pip install {PACKAGES[extra]}")
        self.package = package
