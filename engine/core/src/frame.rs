//! Journal frames, as `engine/frame.py` lays them out, and what a frame of several sessions'
//! commands comes to for each.

use crate::codes::FLAG_LAST;
use crate::crc32c::crc32c;
use crate::wire::{COMMAND_BYTES, EVENT_BYTES};

/// What stands before the commands.
pub const FRAME_HEADER_BYTES: usize = 64;

const CRC_AT: usize = FRAME_HEADER_BYTES - 4;
const SESSION_AT: usize = 6;
const REFERENCE_AT: usize = 16;
const EVENT_FLAGS_AT: usize = 6;

/// Fills the bytes kept free before the commands; returns the frame's checksum.
pub fn seal(frame: &mut [u8], rules: u16, first_seq: u64, ts_ns: u64, previous_crc: u32) -> u32 {
    let (header, commands) = frame.split_at_mut(FRAME_HEADER_BYTES);
    let size = commands.len() as u32;
    header[..4].copy_from_slice(b"RSWF");
    header[4..6].copy_from_slice(&rules.to_le_bytes());
    header[6..8].fill(0);
    header[8..12].copy_from_slice(&(size / COMMAND_BYTES as u32).to_le_bytes());
    header[12..16].copy_from_slice(&size.to_le_bytes());
    header[16..24].copy_from_slice(&first_seq.to_le_bytes());
    header[24..32].copy_from_slice(&ts_ns.to_le_bytes());
    header[32..36].copy_from_slice(&previous_crc.to_le_bytes());
    header[36..40].copy_from_slice(&crc32c(commands).to_le_bytes());
    header[40..CRC_AT].fill(0);
    let crc = crc32c(&header[..CRC_AT]);
    header[CRC_AT..].copy_from_slice(&crc.to_le_bytes());
    crc
}

/// Writes the session's number into each command.
pub fn stamp(commands: &mut [u8], session: u16) {
    for command in commands.as_chunks_mut::<COMMAND_BYTES>().0 {
        command[SESSION_AT..SESSION_AT + 2].copy_from_slice(&session.to_le_bytes());
    }
}

/// The reference of one command.
pub fn reference(command: &[u8; COMMAND_BYTES]) -> u64 {
    u64::from_le_bytes(crate::wire::part(command, REFERENCE_AT))
}

/// The last command's reference, if each is greater than the one before and the first greater than
/// `above`; otherwise, and of no commands, None.
pub fn last_if_ascending(commands: &[u8], above: u64) -> Option<u64> {
    let mut last = above;
    for command in commands.as_chunks::<COMMAND_BYTES>().0 {
        let reference = reference(command);
        if reference <= last {
            return None;
        }
        last = reference;
    }
    (last > above).then_some(last)
}

/// Where the events of each part end, in bytes, when part `n` has `counts[n]` commands. None unless
/// the events are those of exactly so many commands.
pub fn part_ends(events: &[u8], counts: impl Iterator<Item = usize>) -> Option<Vec<usize>> {
    let (records, rest) = events.as_chunks::<EVENT_BYTES>();
    let mut at = 0;
    let mut ends = Vec::new();
    for count in counts {
        for _ in 0..count {
            at += 1 + records[at..]
                .iter()
                .position(|each| each[EVENT_FLAGS_AT] & FLAG_LAST != 0)?;
        }
        ends.push(at * EVENT_BYTES);
    }
    (at == records.len() && rest.is_empty()).then_some(ends)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn commands(references: &[u64]) -> Vec<u8> {
        let mut bytes = vec![0; references.len() * COMMAND_BYTES];
        for (n, reference) in references.iter().enumerate() {
            let at = n * COMMAND_BYTES + REFERENCE_AT;
            bytes[at..at + 8].copy_from_slice(&reference.to_le_bytes());
        }
        bytes
    }

    fn events(lasts: &[bool]) -> Vec<u8> {
        let mut bytes = vec![0; lasts.len() * EVENT_BYTES];
        for (n, &last) in lasts.iter().enumerate() {
            bytes[n * EVENT_BYTES + EVENT_FLAGS_AT] = if last { FLAG_LAST | 2 } else { 2 };
        }
        bytes
    }

    #[test]
    fn references_ascend_strictly_or_not_at_all() {
        assert_eq!(last_if_ascending(&commands(&[5, 6, 9]), 4), Some(9));
        assert_eq!(last_if_ascending(&commands(&[5, 6, 9]), 5), None);
        assert_eq!(last_if_ascending(&commands(&[5, 5]), 4), None);
        assert_eq!(last_if_ascending(&commands(&[6, 5]), 4), None);
        assert_eq!(last_if_ascending(&[], 4), None);
        assert_eq!(last_if_ascending(&commands(&[u64::MAX]), 0), Some(u64::MAX));
    }

    #[test]
    fn each_part_gets_the_events_of_its_own_commands() {
        let told = events(&[true, false, false, true, true, false, true]);
        let ends = part_ends(&told, [1, 2, 1].into_iter());
        assert_eq!(
            ends,
            Some(vec![EVENT_BYTES, 5 * EVENT_BYTES, 7 * EVENT_BYTES])
        );
    }

    #[test]
    fn events_of_more_or_fewer_commands_are_refused() {
        let told = events(&[true, false, true]);
        assert_eq!(part_ends(&told, [1].into_iter()), None);
        assert_eq!(part_ends(&told, [2, 1].into_iter()), None);
        assert_eq!(part_ends(&told[..EVENT_BYTES * 2], [2].into_iter()), None);
        assert_eq!(part_ends(&told[..EVENT_BYTES + 1], [1].into_iter()), None);
    }

    #[test]
    fn a_stamp_changes_the_session_and_nothing_else() {
        let mut bytes = vec![0xff; 2 * COMMAND_BYTES];
        stamp(&mut bytes, 0x0102);
        for command in bytes.as_chunks::<COMMAND_BYTES>().0 {
            assert_eq!(command[6..8], [2, 1]);
            assert!(
                command[..6]
                    .iter()
                    .chain(&command[8..])
                    .all(|&byte| byte == 0xff)
            );
        }
    }

    #[test]
    fn the_checksum_of_a_frame_covers_its_header_and_its_place_in_the_chain() {
        let mut one = vec![7; FRAME_HEADER_BYTES + COMMAND_BYTES];
        let mut other = one.clone();
        assert_ne!(seal(&mut one, 2, 1, 5, 0), seal(&mut other, 2, 1, 5, 1));
        let crc = crc32c(&one[..60]);
        assert_eq!(one[60..64], crc.to_le_bytes());
        assert_eq!(one[36..40], crc32c(&one[64..]).to_le_bytes());
    }
}
