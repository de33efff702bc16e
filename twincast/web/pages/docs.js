/** Shows openapi.json by Swagger UI, as dark as the system is. */

import { SERVER_PATH } from "../dashboard/server.js";

const dark = matchMedia("(prefers-color-scheme: dark)");
const follow = () => document.documentElement.classList.toggle("dark-mode", dark.matches);
follow();
dark.addEventListener("change", follow);

/** Calls go where this page was reached, which the server need not know: a proxy may have taken a path away. */
const callHere = () => ({
  statePlugins: {
    spec: { wrapActions: { updateJsonSpec: (update) => (spec) => update(SERVER_PATH ? { ...spec, servers: [{ url: SERVER_PATH }] } : spec) } },
  },
});

SwaggerUIBundle({
  url: "openapi.json",
  plugins: [callHere],
  dom_id: "#swagger-ui",
  deepLinking: true,
  tryItOutEnabled: true,
  validatorUrl: null,
  displayRequestDuration: true,
  defaultModelsExpandDepth: 0,
});
