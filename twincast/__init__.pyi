from twincast.inside import Twincast as Twincast

__version__: str
