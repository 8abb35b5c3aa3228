// A message centre for tests: SMPP by npm's `smpp`, which shares no code with the client under test.
//
// Lines on stdin set how it behaves, lines of JSON on stdout say what happened. It begins with
// {"port":N}. Commands:
//   answer ok|stall|throttle N|refuse STATUS   how submit_sm is answered; throttle: the next N of them
//   receipts delivered|failed|none             what is sent after a submit_sm that was accepted
//   bind ok|refuse                             how binds are answered
//   release                                    answers what is stalled
//   drop                                       ends every connection without a word
//   unbind                                     asks every client to leave
'use strict';

const fs = require('fs');
const readline = require('readline');
const smpp = require('smpp');

const [key, cert] = process.argv.slice(2);
const options = key ? { key: fs.readFileSync(key), cert: fs.readFileSync(cert) } : {};
const say = (event) => process.stdout.write(JSON.stringify(event) + '\n');

let answer = { kind: 'ok' };
let receipts = 'delivered';
let bind = 'ok';
let stalled = [];
let count = 0;
// Messages without an answer, on all connections.
let open = 0;
const sessions = new Set();

function receipt(session, pdu, id) {
  if (receipts === 'none' || (pdu.registered_delivery & 3) === 0) return;
  const good = receipts === 'delivered';
  const text = `id:${id} sub:001 dlvrd:${good ? '001' : '000'} submit date:2611300000 ` +
    `done date:2611300000 stat:${good ? 'DELIVRD' : 'UNDELIV'} err:000 text:`;
  session.deliver_sm({
    esm_class: 4,
    source_addr_ton: pdu.dest_addr_ton,
    source_addr_npi: pdu.dest_addr_npi,
    source_addr: pdu.destination_addr,
    destination_addr: pdu.source_addr,
    short_message: text,
    receipted_message_id: id,
    message_state: good ? 2 : 5,
  }, (reply) => say({ event: 'receipt', id, status: reply.command_status }));
}

function accept(session, pdu, id) {
  open -= 1;
  session.send(pdu.response({ message_id: id }));
  receipt(session, pdu, id);
}

function submitted(session, pdu) {
  open += 1;
  count += 1;
  const id = count.toString(16).padStart(10, '0');
  say({
    event: 'submit',
    id,
    open,
    answer: answer.kind,
    to: pdu.destination_addr,
    to_ton: pdu.dest_addr_ton,
    to_npi: pdu.dest_addr_npi,
    from: pdu.source_addr,
    from_ton: pdu.source_addr_ton,
    from_npi: pdu.source_addr_npi,
    esm_class: pdu.esm_class,
    data_coding: pdu.data_coding,
    registered_delivery: pdu.registered_delivery,
    validity_period: pdu.validity_period,
    text: pdu.short_message.message,
  });
  switch (answer.kind) {
    case 'ok':
      accept(session, pdu, id);
      break;
    case 'stall':
      stalled.push([session, pdu, id]);
      break;
    case 'throttle':
      open -= 1;
      answer.left -= 1;
      if (answer.left === 0) answer = { kind: 'ok' };
      session.send(pdu.response({ command_status: smpp.ESME_RTHROTTLED }));
      break;
    case 'refuse':
      open -= 1;
      session.send(pdu.response({ command_status: answer.status }));
      break;
  }
}

const server = smpp.createServer(options, (session) => {
  sessions.add(session);
  session.on('close', () => {
    sessions.delete(session);
    stalled = stalled.filter(([of]) => {
      if (of === session) open -= 1;
      return of !== session;
    });
    say({ event: 'closed' });
  });
  session.on('error', () => session.destroy());
  session.on('bind_transceiver', (pdu) => {
    const good = bind === 'ok';
    say({
      event: 'bind',
      system_id: pdu.system_id,
      password: pdu.password,
      interface_version: pdu.interface_version,
    });
    session.send(pdu.response(good ? {} : { command_status: smpp.ESME_RINVPASWD }));
  });
  session.on('submit_sm', (pdu) => submitted(session, pdu));
  session.on('enquire_link', (pdu) => {
    say({ event: 'enquire_link' });
    session.send(pdu.response());
  });
  session.on('unbind', (pdu) => session.send(pdu.response()));
  session.on('unbind_resp', () => say({ event: 'unbound' }));
});
server.on('error', (error) => say({ event: 'error', error: String(error) }));
server.listen(0, '127.0.0.1', () => say({ port: server.address().port }));

const commands = {
  answer(kind, number) {
    answer = { kind, left: Number(number), status: Number(number) };
  },
  receipts(kind) {
    receipts = kind;
  },
  bind(kind) {
    bind = kind;
  },
  release() {
    const waiting = stalled;
    stalled = [];
    waiting.forEach(([session, pdu, id]) => accept(session, pdu, id));
  },
  drop() {
    sessions.forEach((session) => session.destroy());
  },
  unbind() {
    sessions.forEach((session) => session.unbind());
  },
};

readline.createInterface({ input: process.stdin }).on('line', (line) => {
  const [name, ...rest] = line.split(' ');
  commands[name](...rest);
  say({ event: 'done', command: name });
}).on('close', () => process.exit(0));
