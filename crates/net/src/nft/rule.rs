//! Rules: a builder with one method per expression we use.
//!
//! A rule is a list of expressions that read and write registers; the first one that does not hold ends the rule. Registers are
//! 32 bits each; a concatenated key is a run of them. The kernel refuses a rule that reads a register it did not
//! write itself, so nothing is carried from rule to rule.

use ipnet::IpNet;

use super::set::Verdict;
use super::{Family, wire};
use crate::netlink::Writer;

/// A 32-bit register, 0 to 15.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Register(pub u32);

impl Register {
    fn number(self) -> u32 {
        libc::NFT_REG32_00 as u32 + self.0
    }
}

/// How a register is compared with a constant.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum Compare {
    /// The rule goes on when they are equal.
    Equal,
    /// The rule goes on when they differ.
    NotEqual,
}

/// The expressions of one rule, in order.
#[derive(Debug, Clone)]
pub struct Rule {
    family: Family,
    writer: Writer,
}

impl Rule {
    /// A rule without conditions for a table of this family.
    pub fn new(family: Family) -> Self {
        Rule { family, writer: Writer::new() }
    }

    /// The table's family.
    pub fn family(&self) -> Family {
        self.family
    }

    pub(super) fn expressions(&self) -> &[u8] {
        self.writer.bytes()
    }

    fn expression(mut self, name: &str, fill: impl FnOnce(&mut Writer)) -> Self {
        self.writer.nest(wire::LIST_ELEM, |element| {
            element.string(wire::EXPR_NAME, name);
            element.nest(wire::EXPR_DATA, fill);
        });
        self
    }

    fn payload(self, base: libc::c_int, offset: u32, len: u32, to: Register) -> Self {
        self.expression("payload", |data| {
            data.be32(wire::PAYLOAD_DREG, to.number());
            data.be32(wire::PAYLOAD_BASE, base as u32);
            data.be32(wire::PAYLOAD_OFFSET, offset);
            data.be32(wire::PAYLOAD_LEN, len);
        })
    }

    /// Loads the source address.
    pub fn source(self, to: Register) -> Self {
        let (offset, len) = if self.family == Family::V4 { (12, 4) } else { (8, 16) };
        self.payload(libc::NFT_PAYLOAD_NETWORK_HEADER, offset, len, to)
    }

    /// Loads the destination address.
    pub fn destination(self, to: Register) -> Self {
        let (offset, len) = if self.family == Family::V4 { (16, 4) } else { (24, 16) };
        self.payload(libc::NFT_PAYLOAD_NETWORK_HEADER, offset, len, to)
    }

    /// Loads the destination port; does not hold for fragments without one.
    pub fn destination_port(self, to: Register) -> Self {
        self.payload(libc::NFT_PAYLOAD_TRANSPORT_HEADER, 2, 2, to)
    }

    fn meta(self, key: libc::c_int, to: Register) -> Self {
        self.expression("meta", |data| {
            data.be32(wire::META_KEY, key as u32);
            data.be32(wire::META_DREG, to.number());
        })
    }

    /// Loads the layer 4 protocol.
    pub fn protocol(self, to: Register) -> Self {
        self.meta(libc::NFT_META_L4PROTO, to)
    }

    /// Loads the index of the device the packet came in by.
    pub fn input_index(self, to: Register) -> Self {
        self.meta(libc::NFT_META_IIF, to)
    }

    /// Loads the packet's mark.
    pub fn mark(self, to: Register) -> Self {
        self.meta(libc::NFT_META_MARK, to)
    }

    /// Sets the packet's mark.
    pub fn set_mark(self, from: Register) -> Self {
        self.expression("meta", |data| {
            data.be32(wire::META_KEY, libc::NFT_META_MARK as u32);
            data.be32(wire::META_SREG, from.number());
        })
    }

    /// Loads the connection's state bits.
    pub fn ct_state(self, to: Register) -> Self {
        self.expression("ct", |data| {
            data.be32(wire::CT_KEY, libc::NFT_CT_STATE as u32);
            data.be32(wire::CT_DREG, to.number());
        })
    }

    /// Loads the routing type (`RTN_LOCAL`, ...) of the source address.
    pub fn source_type(self, to: Register) -> Self {
        self.fib_type(wire::FIB_FLAG_SADDR, to)
    }

    /// Loads the routing type of the destination address.
    pub fn destination_type(self, to: Register) -> Self {
        self.fib_type(wire::FIB_FLAG_DADDR, to)
    }

    fn fib_type(self, flags: u32, to: Register) -> Self {
        self.expression("fib", |data| {
            data.be32(wire::FIB_FLAGS, flags);
            data.be32(wire::FIB_RESULT, wire::FIB_RESULT_ADDRTYPE);
            data.be32(wire::FIB_DREG, to.number());
        })
    }

    /// Holds when the register's first bytes compare with `value` as asked.
    pub fn compare(self, register: Register, how: Compare, value: &[u8]) -> Self {
        let operation = match how {
            Compare::Equal => libc::NFT_CMP_EQ,
            Compare::NotEqual => libc::NFT_CMP_NEQ,
        };
        self.expression("cmp", |data| {
            data.be32(wire::CMP_SREG, register.number());
            data.be32(wire::CMP_OP, operation as u32);
            data.nest(wire::CMP_DATA, |constant| constant.bytes_attr(wire::DATA_VALUE, value));
        })
    }

    /// `to = (from & mask) ^ xor`
    pub fn bitwise(self, from: Register, to: Register, mask: &[u8], xor: &[u8]) -> Self {
        self.expression("bitwise", |data| {
            data.be32(wire::BITWISE_SREG, from.number());
            data.be32(wire::BITWISE_DREG, to.number());
            data.be32(wire::BITWISE_LEN, mask.len() as u32);
            data.nest(wire::BITWISE_MASK, |value| value.bytes_attr(wire::DATA_VALUE, mask));
            data.nest(wire::BITWISE_XOR, |value| value.bytes_attr(wire::DATA_VALUE, xor));
        })
    }

    /// Holds when the address in `register` is inside (or, with `NotEqual`, outside) `network`. The register is masked.
    pub fn network(self, register: Register, how: Compare, network: IpNet) -> Self {
        let (mask, prefix) = match network {
            IpNet::V4(net) => (net.netmask().octets().to_vec(), net.network().octets().to_vec()),
            IpNet::V6(net) => (net.netmask().octets().to_vec(), net.network().octets().to_vec()),
        };
        let zero = vec![0; mask.len()];
        self.bitwise(register, register, &mask, &zero).compare(register, how, &prefix)
    }

    /// Holds when the connection is new.
    pub fn new_connection(self, scratch: Register) -> Self {
        // NF_CT_STATE_BIT(IP_CT_NEW)
        const NEW: u32 = 1 << 3;
        self.ct_state(scratch).bitwise(scratch, scratch, &NEW.to_ne_bytes(), &[0; 4]).compare(
            scratch,
            Compare::NotEqual,
            &[0; 4],
        )
    }

    /// Holds when the key that starts at `key` is in the set.
    pub fn in_set(self, set: &str, key: Register) -> Self {
        self.expression("lookup", |data| {
            data.string(wire::LOOKUP_SET, set);
            data.be32(wire::LOOKUP_SREG, key.number());
        })
    }

    /// Holds when the key is in the map, and loads what it leads to.
    pub fn in_map(self, map: &str, key: Register, to: Register) -> Self {
        self.expression("lookup", |data| {
            data.string(wire::LOOKUP_SET, map);
            data.be32(wire::LOOKUP_SREG, key.number());
            data.be32(wire::LOOKUP_DREG, to.number());
        })
    }

    /// Does what the verdict map says for the key; holds without effect when it says nothing.
    pub fn verdict_of(self, map: &str, key: Register) -> Self {
        self.expression("lookup", |data| {
            data.string(wire::LOOKUP_SET, map);
            data.be32(wire::LOOKUP_SREG, key.number());
            data.be32(wire::LOOKUP_DREG, libc::NFT_REG_VERDICT as u32);
        })
    }

    /// Starts the time of a dynamic map's entry anew, or adds one; the data of an existing entry stays as it is.
    pub fn refresh(self, map: &str, key: Register, value: Register, timeout_ms: u64) -> Self {
        self.expression("dynset", |data| {
            data.string(wire::DYNSET_SET_NAME, map);
            data.be32(wire::DYNSET_OP, wire::DYNSET_OP_UPDATE);
            data.be32(wire::DYNSET_SREG_KEY, key.number());
            data.be32(wire::DYNSET_SREG_DATA, value.number());
            data.be64(wire::DYNSET_TIMEOUT, timeout_ms);
        })
    }

    /// `to = offset + a random number below modulus`
    pub fn random(self, to: Register, modulus: u32, offset: u32) -> Self {
        self.expression("numgen", |data| {
            data.be32(wire::NUMGEN_DREG, to.number());
            data.be32(wire::NUMGEN_MODULUS, modulus);
            data.be32(wire::NUMGEN_TYPE, wire::NUMGEN_RANDOM);
            data.be32(wire::NUMGEN_OFFSET, offset);
        })
    }

    /// Translates the destination to the address and port in these registers.
    pub fn translate_destination(self, address: Register, port: Register) -> Self {
        let family = u32::from(self.family.number());
        self.expression("nat", |data| {
            data.be32(wire::NAT_TYPE, wire::NAT_TYPE_DNAT);
            data.be32(wire::NAT_FAMILY, family);
            data.be32(wire::NAT_REG_ADDR_MIN, address.number());
            data.be32(wire::NAT_REG_PROTO_MIN, port.number());
        })
    }

    /// Translates the source to an address of the outgoing device, with a random port.
    pub fn masquerade(self) -> Self {
        self.expression("masq", |data| data.be32(wire::MASQ_FLAGS, wire::NAT_RANGE_RANDOM_FULLY))
    }

    /// Has the connection tracker take no notice of the packet; for rules that run before it does.
    pub fn untracked(self) -> Self {
        self.expression("notrack", |_| ())
    }

    /// Answers with "port unreachable", as upstream does for a service without endpoints.
    pub fn reject(self) -> Self {
        let code = if self.family == Family::V4 { wire::ICMP_PORT_UNREACH } else { wire::ICMP6_PORT_UNREACH };
        self.expression("reject", |data| {
            data.be32(wire::REJECT_TYPE, wire::REJECT_ICMP_UNREACH);
            data.u8(wire::REJECT_ICMP_CODE, code);
        })
    }

    /// Answers a TCP packet with a reset; does not hold for other protocols.
    pub fn reset(self, scratch: Register) -> Self {
        let tcp = self.protocol(scratch).compare(scratch, Compare::Equal, &[libc::IPPROTO_TCP as u8]);
        tcp.expression("reject", |data| data.be32(wire::REJECT_TYPE, wire::REJECT_TCP_RESET))
    }

    /// Ends the rule with a verdict.
    pub fn verdict(self, verdict: &Verdict) -> Self {
        self.expression("immediate", |data| {
            data.be32(wire::IMMEDIATE_DREG, libc::NFT_REG_VERDICT as u32);
            data.nest(wire::IMMEDIATE_DATA, |value| verdict.encode(value));
        })
    }

    /// Jumps to another chain.
    pub fn jump(self, chain: &str) -> Self {
        self.verdict(&Verdict::Jump(chain.to_owned()))
    }
}
