// MQTT.js publishing from its level store: node drain.cjs URL N QOS WINDOW STOREDIR PAYLOAD. Prints the seconds it took.
const mqtt = require('mqtt')
const levelStore = require('mqtt-level-store')
const [url, n, qos, window, dir, payload] = process.argv.slice(2)
const manager = levelStore(dir)
const client = mqtt.connect(url, { clientId: 'bench-mqttjs', clean: false, incomingStore: manager.incoming, outgoingStore: manager.outgoing })
client.once('connect', () => {
  const total = Number(n)
  const began = process.hrtime.bigint()
  let sent = 0, done = 0
  const more = () => {
    while (sent < total && sent - done < Number(window)) {
      sent++
      client.publish('fieldagent/bench/event/meter', payload, { qos: Number(qos) }, err => {
        if (err) { console.error(err); process.exit(1) }
        done++
        if (done === total) {
          console.log(Number(process.hrtime.bigint() - began) / 1e9)
          client.end(true, () => process.exit(0))
        } else more()
      })
    }
  }
  more()
})
