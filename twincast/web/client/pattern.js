/**
 * Says whether a name is covered by any of some patterns; see docs/delivery.md.
 * @param {Iterable<string>} patterns
 * @returns {(name: string) => boolean}
 */
export function matcherOf(patterns) {
  const exact = new Set();
  const starred = [];
  for (const pattern of patterns) {
    const parts = partsOf(pattern);
    if (parts.length === 1) exact.add(parts[0]);
    else starred.push(parts);
  }
  return (name) => exact.has(name) || starred.some((parts) => covers(parts, name));
}

/** What stands between the stars. */
function partsOf(pattern) {
  const parts = [""];
  for (let index = 0; index < pattern.length; index += 1) {
    if (pattern[index] === "*") parts.push("");
    else parts[parts.length - 1] += pattern[index] === "\\" ? pattern[(index += 1)] ?? "" : pattern[index];
  }
  return parts;
}

function covers([head, ...inner], name) {
  const tail = inner.pop();
  const end = name.length - tail.length;
  if (end < head.length || !name.startsWith(head) || !name.endsWith(tail)) return false;
  let from = head.length;
  for (const part of inner) {
    const found = name.indexOf(part, from); // the leftmost place leaves the most for the parts that follow
    if (found < 0) return false;
    from = found + part.length;
  }
  return from <= end;
}
