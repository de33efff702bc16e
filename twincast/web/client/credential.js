const CREDENTIAL = /^[\x21-\x7e]+$/;

/**
 * Gets a credential for one connection.
 * @param {() => string|Promise<string>} get
 * @returns {Promise<string>}
 * @throws {Error} whatever `get` throws; or it gave what none can be
 */
export async function credentialFrom(get) {
  const token = await get();
  if (typeof token !== "string" || !CREDENTIAL.test(token.trim())) throw new Error("what should get one gave something else");
  return token;
}
