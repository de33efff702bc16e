/** Shows asyncapi.json to people: each operation, its messages, and their fields. */

const place = document.getElementById("operations");

function make(tag, className, ...content) {
  const element = document.createElement(tag);
  if (className) element.className = className;
  element.append(...content);
  return element;
}

/** Follows a JSON pointer of the document. */
function follow(document, reference) {
  return reference.split("/").slice(1).reduce((node, name) => node[name], document);
}

function resolve(document, node) {
  return node.$ref ? resolve(document, follow(document, node.$ref)) : node;
}

/** Says a schema in few words. */
function sayType(schema) {
  if (schema.$ref) return schema.$ref.split("/").at(-1);
  if (schema.const !== undefined) return JSON.stringify(schema.const);
  if (schema.enum) return schema.enum.map((value) => JSON.stringify(value)).join(" or ");
  if (schema.anyOf) return schema.anyOf.map(sayType).join(" or ");
  if (schema.type === "array") return `list of ${sayType(schema.items ?? {})}`;
  if (schema.additionalProperties?.$ref) return `object of ${sayType(schema.additionalProperties)}`;
  return schema.type ?? "any JSON";
}

function sayMore(schema) {
  const examples = (schema.examples ?? []).map((example) => JSON.stringify(example));
  const bounds = schema.maxLength ? `${schema.minLength ?? 0} to ${schema.maxLength} characters` : "";
  return [schema.description, bounds, examples.length ? `such as ${examples.join(", ")}` : ""].filter(Boolean).join("; ");
}

function fieldsOf(document, payload) {
  const table = make("table", "", make("thead", "", make("tr", "", ...["Field", "Type", ""].map((text) => make("th", "", text)))));
  const body = make("tbody", "");
  for (const [name, schema] of Object.entries(payload.properties ?? {})) {
    const isNeeded = (payload.required ?? []).includes(name);
    const label = make("td", "", name, isNeeded ? "" : make("span", "optional", " optional"));
    body.append(make("tr", "", label, make("td", "", sayType(schema)), make("td", "", sayMore(schema))));
  }
  table.append(body);
  return make("div", "fields", table);
}

function show(document) {
  const parts = [];
  const order = ["received", "sent", "streamed"];
  for (const id of order.filter((name) => document.operations[name])) {
    const operation = document.operations[id];
    parts.push(make("h2", "", operation.summary));
    if (id === "streamed") {
      parts.push(make("p", "", "The events have the fields above; the id of each is its position."));
      continue;
    }
    for (const reference of operation.messages) {
      const message = resolve(document, reference);
      const section = make("section", "message", make("h3", "", message.name), make("p", "", message.summary));
      section.append(fieldsOf(document, resolve(document, message.payload)));
      parts.push(section);
    }
  }
  place.replaceChildren(...parts);
}

try {
  const response = await fetch("asyncapi.json");
  show(await response.json());
} catch (error) {
  place.replaceChildren(make("p", "", `The description cannot be read: ${error.message}. Reload the page to try again.`));
}
