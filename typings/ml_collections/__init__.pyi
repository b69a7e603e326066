"""What a type checker may know of ConfigDict: its attributes are those of the config."""

from typing import Any

class ConfigDict(Any): ...
class FrozenConfigDict(ConfigDict): ...

config_dict: Any
