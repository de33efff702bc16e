"""What schemathesis has to be told beside the document."""

import schemathesis

# The document has NDJSON as a text; schemathesis knows how to send one of those.
schemathesis.serializer.alias("application/x-ndjson", "text/plain")
