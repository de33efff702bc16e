"""JSON Schemas of the structs on the wire, as both documents hold them."""

from typing import Any

import msgspec
from msgspec import Struct

from twincast.core.model import ENTRIES, Twin


def components(*types: type[Struct]) -> dict[str, Any]:
    """Return the schemas of structs and of all that they refer to, by name."""
    _, schemas = msgspec.json.schema_components((*types, Twin), ref_template="#/components/schemas/{name}")
    for name in schemas.keys() & {each.__name__ for each in ENTRIES}:  # an entry that leaves the server has a position
        schemas[name]["required"] = [*schemas[name]["required"], "seq", "epoch"]
        for position in ("seq", "epoch"):
            schemas[name]["properties"][position].pop("default", None)
    return schemas


def reference(*types: type[Struct]) -> dict[str, Any]:
    """Return a schema that is one of some structs, whose own schemas are among the components."""
    references = [{"$ref": f"#/components/schemas/{kind.__name__}"} for kind in types]
    return references[0] if len(references) == 1 else {"anyOf": references}


def tagged_union(*types: type[Struct]) -> dict[str, Any]:
    """Return a schema that is one of some messages, told apart by their `type`."""
    mapping = {str(kind.__struct_config__.tag): reference(kind)["$ref"] for kind in types}
    return {**reference(*types), "discriminator": {"propertyName": "type", "mapping": mapping}}
