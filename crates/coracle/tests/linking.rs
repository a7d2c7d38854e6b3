//! How the shipped program is linked, which decides what each pod's shim costs; see `docs/decisions`.

use std::io::Read;

/// `ET_EXEC` in the second field of an ELF header, after sixteen bytes of identification.
const FIXED_ADDRESS: u16 = 2;

#[test]
fn the_program_is_linked_to_a_fixed_address_so_that_shims_share_its_tables() {
    let mut header = [0; 18];
    std::fs::File::open(env!("CARGO_BIN_EXE_coracle")).unwrap().read_exact(&mut header).unwrap();
    assert_eq!(&header[..4], b"\x7fELF");
    assert_eq!(u16::from_le_bytes([header[16], header[17]]), FIXED_ADDRESS);
}
