"""What to say where a package of an extra is not installed."""


class MissingExtraError(ImportError):
    """A package that only an extra brings is not installed; the message says how to get it."""

    def __init__(self, what: str, package: str, extra: str):
        super().__init__(f"{what} needs {package}: pip install 'pointnet-shared-mlp[{extra}]'")
        self.package = package
