use std::io::{Read, Write};
use std::net::Shutdown;
use std::os::unix::net::UnixStream;

use mio::Waker;

use super::*;
use crate::body::Body;
use crate::capture::Captures;
use crate::client::State;
use crate::conn::{Inbox, Outbox, Stream};
use crate::json::PlacedKeys;
use crate::settings::{Address, Limits};
use crate::upstream::Phase;

/// In front of a monolith whose socket is not there.
fn plane() -> Plane {
    let forever = f64::MAX;
    let settings = Settings {
        worker: "w".into(),
        upstreams: vec![Address::Unix("/nowhere/at/all".into())],
        authority: b"h".to_vec(),
        identity: Vec::new(),
        id_prefix: "i".into(),
        placed_status: 201,
        placed_many_status: 201,
        placed_keys: PlacedKeys::default(),
        ahead: false,
        special_orders: false,
        special_reads: false,
        count_file: None,
        limits: Limits {
            clients_max: 10,
            client_head_s: forever,
            client_idle_s: forever,
            client_stall_s: forever,
            sweep_s: forever,
            upstream_connect_s: 1.0,
            upstream_wait_s: forever,
            upstream_connections_max: 1,
            upstream_waiting_max: 100_000,
            upstream_fall: u32::MAX,
            ..Limits::default()
        },
    };
    let poll = Poll::new().expect("a poll");
    let waker = Waker::new(poll.registry(), WAKER).expect("a waker");
    let captures = Captures::new("w".into(), 10, 10_000, None);
    let (bell, _) = UnixStream::pair().expect("a pair");
    let shared = Arc::new(Shared::new(captures, waker, bell));
    Plane::new(settings, Router::new(Vec::new(), false), None, poll, shared).expect("a plane")
}

/// So many turns, without waiting in any.
fn turn(plane: &mut Plane, count: usize) {
    let mut events = Events::with_capacity(64);
    for _ in 0..count {
        plane
            .poll
            .poll(&mut events, Some(Duration::ZERO))
            .expect("a poll");
        plane.hear(&events);
        plane.take_turn();
    }
}

/// A client, by its index, and its own end.
fn client(plane: &mut Plane) -> (usize, UnixStream) {
    let (ours, theirs) = UnixStream::pair().expect("a pair");
    let index = plane.clients.vacant_key();
    plane.adopt(ours, b"p".to_vec());
    (index, theirs)
}

/// A client in a tunnel to the monolith: both by their index, and the other ends.
fn tunnel(plane: &mut Plane) -> (usize, usize, UnixStream, UnixStream) {
    let (one, near) = client(plane);
    let (ours, far) = UnixStream::pair().expect("a pair");
    ours.set_nonblocking(true).expect("nonblocking");
    let mut stream = Stream::Unix(mio::net::UnixStream::from_std(ours));
    let index = plane.ups.vacant_key();
    stream
        .register(plane.poll.registry(), up_token(index))
        .expect("registered");
    plane.ups.insert(Up {
        stream,
        server: 0,
        phase: Phase::Tunnel(one),
        exchange: None,
        inbox: Inbox::default(),
        outbox: Outbox::default(),
        scanned: 0,
        readable: false,
        read_closed: false,
        ends: false,
        is_dead: false,
        write_failed: false,
        since: 0.0,
        body: Body::UntilClose,
        rechunk: false,
        keeps_alive: false,
        informational: 0,
    });
    plane.servers[0].open += 1;
    plane.servers[0].under_way += 1;
    plane.clients[one].state = State::Tunnel(index);
    (one, index, near, far)
}

#[test]
fn all_who_wait_for_a_server_that_is_gone_are_told_in_one_stack() {
    let mut plane = plane();
    let count = 20_000;
    for _ in 0..count {
        let id = plane.new_exchange(0);
        let exchange = plane.exchange(id).expect("a new one");
        exchange.client = None;
        exchange.place = Place::Waiting;
        plane.servers[0].waiting.push_back(id);
    }
    plane.connect(0);
    turn(&mut plane, count + 2);
    assert!(plane.exchanges.is_empty() && plane.servers[0].waiting.is_empty());
    assert!(plane.unreachable.is_empty());
}

#[test]
fn what_is_told_of_a_connection_that_is_gone_does_not_meet_the_next_in_its_place() {
    let mut plane = plane();
    let (old, _) = client(&mut plane);
    plane.lose_client(old);
    let (new, mut near) = client(&mut plane);
    assert_eq!(old, new);
    let dead = Readiness {
        readable: true,
        writable: true,
        ends: true,
        is_dead: true,
    };
    plane.on_event(client_token(new).0, dead);
    near.write_all(b"GET / HTTP/1.1\r\n").expect("written");
    turn(&mut plane, 3);
    assert_eq!(plane.clients[new].inbox.len(), 16);
}

#[test]
fn a_tunnel_ends_behind_all_that_was_sent_through_it() {
    let mut plane = plane();
    let (one, up, mut near, mut far) = tunnel(&mut plane);
    let sent = vec![7; 3_000_000];
    plane.clients[one].inbox.push(&sent);
    plane.wake_client(one);
    turn(&mut plane, 2);
    near.shutdown(Shutdown::Write).expect("ended");
    far.shutdown(Shutdown::Write).expect("ended");
    turn(&mut plane, 3);
    // Both have ended, and the monolith has not taken it all.
    assert!(plane.clients.contains(one) && plane.ups.contains(up));
    let mut got = Vec::new();
    far.set_nonblocking(true).expect("nonblocking");
    while got.len() < sent.len() {
        let _ = far.read_to_end(&mut got);
        turn(&mut plane, 1);
    }
    turn(&mut plane, 2);
    assert!(plane.clients.is_empty() && plane.ups.is_empty());
    assert_eq!((plane.servers[0].open, plane.servers[0].under_way), (0, 0));
    assert_eq!(near.read(&mut [0; 10]).expect("its end"), 0);
}

#[test]
fn whoever_loses_one_side_of_a_tunnel_closes_the_other() {
    for is_client in [true, false] {
        let mut plane = plane();
        let (one, up, near, far) = tunnel(&mut plane);
        // A client that has gone is heard of once the monolith has taken what came of it.
        let size = if is_client { 10 } else { 3_000_000 };
        plane.clients[one].inbox.push(&vec![7; size]);
        plane.wake_client(one);
        turn(&mut plane, 2);
        near.shutdown(Shutdown::Write).expect("ended");
        turn(&mut plane, 2);
        if is_client {
            drop(near);
        } else {
            drop(far);
        }
        turn(&mut plane, 4);
        let left = (plane.clients.contains(one), plane.ups.contains(up));
        assert_eq!(left, (false, false), "{is_client}");
        assert_eq!((plane.servers[0].open, plane.servers[0].under_way), (0, 0));
    }
}

#[test]
fn nothing_is_left_of_what_a_stop_cuts_off() {
    let mut plane = plane();
    let (_, _, _near, _far) = tunnel(&mut plane);
    let (_, mut other) = client(&mut plane);
    other
        .write_all(b"GET / HTTP/1.1\r\nHost: h\r\n\r\n")
        .expect("written");
    turn(&mut plane, 1);
    plane.cut_off();
    assert!(plane.clients.is_empty() && plane.exchanges.is_empty() && plane.ups.is_empty());
}
