// An MQTT.js client that subscribes to everything. Each line on standard input is a message to publish, each line it prints one that came.
import { createRequire } from 'node:module'
import { createInterface } from 'node:readline'

const [folder, url, version] = process.argv.slice(2)
const mqtt = createRequire(folder + '/')('mqtt')
const say = (what) => console.log(JSON.stringify(what))

const client = mqtt.connect(url, { protocolVersion: Number(version), clientId: 'peer-' + process.pid, reconnectPeriod: 100 })
client.on('error', (err) => say({ error: String(err) }))
client.on('message', (topic, payload, packet) => {
  const p = packet.properties ?? {}
  say({ topic, payload: payload.toString(), qos: packet.qos, retain: packet.retain, contentType: p.contentType, correlation: p.correlationData?.toString() })
})
client.on('connect', () => client.subscribe('#', { qos: 2 }, (err) => say(err ? { error: String(err) } : { ready: true })))

const input = createInterface({ input: process.stdin })
input.on('line', (line) => {
  const { topic, payload, qos, responseTopic, correlation } = JSON.parse(line)
  const properties = responseTopic ? { responseTopic, correlationData: Buffer.from(correlation) } : undefined
  client.publish(topic, payload, { qos, properties }, (err) => err && say({ error: String(err) }))
})
input.on('close', () => client.end(false, {}, () => process.exit(0)))
