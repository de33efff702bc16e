/**
 * What the server says, as `onMessages` gives it, and what a client says of itself: types, for editors and TypeScript.
 *
 * @typedef {DataUpdate|Control|Deleted|Late|Ack|Pong|Echo|ErrorMessage} Message told apart by `type`
 */

/**
 * A reading of a device.
 * @typedef {object} DataUpdate
 * @property {"data_update"} type
 * @property {string} device_id
 * @property {any} value
 * @property {string} timestamp_utc ISO 8601
 * @property {"rest"|"websocket"|"application"|"nats"} source
 * @property {number} seq a position in the log
 * @property {string} epoch
 * @property {string} [measured_at_utc] ISO 8601: when it was measured, by its device's clock
 * @property {"off"} [clock] that clock is so far ahead that it is not believed
 * @property {number} [merged] how many changes it stands for, if more than one
 */

/**
 * A reading that was measured before the newest one of its device, and came after it: history, which changes no twin. Only those receive
 * it whose `kinds` name it.
 * @typedef {object} Late
 * @property {"late"} type
 * @property {string} device_id
 * @property {any} value
 * @property {string} timestamp_utc ISO 8601: when it was stored
 * @property {"rest"|"websocket"|"application"|"nats"} source
 * @property {string} measured_at_utc ISO 8601
 * @property {number} seq a position in the log
 * @property {string} epoch
 */

/**
 * A command to a target.
 * @typedef {object} Control
 * @property {"control"} type
 * @property {string} target
 * @property {string} command
 * @property {Record<string, any>} args
 * @property {string} timestamp_utc ISO 8601
 * @property {"rest"|"websocket"|"application"|"nats"} source
 * @property {number} seq a position in the log
 * @property {string} epoch
 */

/**
 * That a device is no more.
 * @typedef {object} Deleted
 * @property {"deleted"} type
 * @property {string} device_id
 * @property {"history"} [scope] all that the log had of it is erased
 * @property {string} timestamp_utc ISO 8601
 * @property {"rest"|"websocket"|"application"|"nats"} source
 * @property {number} seq a position in the log
 * @property {string} epoch
 * @property {number} [merged] how many changes it stands for, if more than one
 */

/**
 * That what was sent with an `id` is on the server's disk, or in force.
 * @typedef {object} Ack
 * @property {"ack"} type
 * @property {string|number} id
 * @property {string} epoch
 * @property {number} seq
 * @property {boolean} [replayed] it was stored before, under the same key
 * @property {object} [line] up to where a numbered line is stored; this client numbers none
 */

/**
 * The answer to a `ping` of one's own.
 * @typedef {object} Pong
 * @property {"pong"} type
 * @property {string} timestamp_utc ISO 8601
 * @property {string} [epoch] with `seq`: everything up to there has come
 * @property {number} [seq]
 */

/**
 * The answer to a message of a type that nobody knows.
 * @typedef {object} Echo
 * @property {"echo"} type
 * @property {string} timestamp_utc ISO 8601
 * @property {any} received
 * @property {string} note
 */

/**
 * What was wrong with a message.
 * @typedef {object} ErrorMessage
 * @property {"error"} type
 * @property {string} code the same word on every wire
 * @property {string} message for people
 * @property {boolean} retryable
 * @property {string|number} [id]
 */

/**
 * The newest of a device.
 * @typedef {object} Twin
 * @property {any} value
 * @property {string} updated_at_utc ISO 8601
 * @property {number} seq
 * @property {"rest"|"websocket"|"application"|"nats"} source
 * @property {string} [measured_at_utc] ISO 8601: when it was measured, by its device's clock
 * @property {"off"} [clock] that clock is so far ahead that it is not believed
 */

/**
 * Where in which log.
 * @typedef {{epoch: string, seq: number}} Position
 */

/**
 * The first and the last seq that may be missing. With `epoch` and `ahead` the log is another than the one before, and these are its
 * numbers: 0 to 0 if there is nothing in it; so are they with `unreadable`, where `since` was no position.
 * @typedef {{from: number, to: number, reason: "too_old"|"epoch"|"ahead"|"unreadable"}} Gap
 */

/**
 * How a client is connected. `phase` "waiting" means for the next attempt, at `retryAtMs`; "refused" means until somebody calls
 * `retry`, or `logIn` if `needsLogin`. When "live": whether it went on where it was, or what may be missing.
 * @typedef {{phase: "closed"|"connecting"|"live"|"waiting"|"refused", retryAtMs: number, attempt: number, reason: string, resumed: boolean,
 *   gap: Gap|null, needsLogin: boolean}} Link
 */

/**
 * How large what is sent may be.
 * @typedef {{messageMaxBytes: number, valueMaxBytes: number}} Limits
 */

export {};
