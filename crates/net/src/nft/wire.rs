//! Attribute numbers of the kernel's nftables interface (`linux/netfilter/nf_tables.h`) that libc does not have.
//!
//! Names follow the kernel's without the `NFTA_` prefix.

pub const TABLE_NAME: u16 = 1;

pub const CHAIN_TABLE: u16 = 1;
pub const CHAIN_NAME: u16 = 3;
pub const CHAIN_HOOK: u16 = 4;
pub const CHAIN_POLICY: u16 = 5;
pub const CHAIN_TYPE: u16 = 7;

pub const HOOK_HOOKNUM: u16 = 1;
pub const HOOK_PRIORITY: u16 = 2;

pub const RULE_TABLE: u16 = 1;
pub const RULE_CHAIN: u16 = 2;
pub const RULE_EXPRESSIONS: u16 = 4;

pub const SET_TABLE: u16 = 1;
pub const SET_NAME: u16 = 2;
pub const SET_FLAGS: u16 = 3;
pub const SET_KEY_TYPE: u16 = 4;
pub const SET_KEY_LEN: u16 = 5;
pub const SET_DATA_TYPE: u16 = 6;
pub const SET_DATA_LEN: u16 = 7;
pub const SET_DESC: u16 = 9;
pub const SET_ID: u16 = 10;
pub const SET_DESC_SIZE: u16 = 1;

pub const ELEM_LIST_TABLE: u16 = 1;
pub const ELEM_LIST_SET: u16 = 2;
pub const ELEM_LIST_ELEMENTS: u16 = 3;
pub const ELEM_KEY: u16 = 1;
pub const ELEM_DATA: u16 = 2;
pub const ELEM_TIMEOUT: u16 = 4;

pub const LIST_ELEM: u16 = 1;

pub const DATA_VALUE: u16 = 1;
pub const DATA_VERDICT: u16 = 2;
pub const VERDICT_CODE: u16 = 1;
pub const VERDICT_CHAIN: u16 = 2;
/// `NFT_DATA_VERDICT` as a set's data type.
pub const DATA_TYPE_VERDICT: u32 = 0xffff_ff00;

pub const EXPR_NAME: u16 = 1;
pub const EXPR_DATA: u16 = 2;

pub const IMMEDIATE_DREG: u16 = 1;
pub const IMMEDIATE_DATA: u16 = 2;

pub const BITWISE_SREG: u16 = 1;
pub const BITWISE_DREG: u16 = 2;
pub const BITWISE_LEN: u16 = 3;
pub const BITWISE_MASK: u16 = 4;
pub const BITWISE_XOR: u16 = 5;

pub const CMP_SREG: u16 = 1;
pub const CMP_OP: u16 = 2;
pub const CMP_DATA: u16 = 3;

pub const LOOKUP_SET: u16 = 1;
pub const LOOKUP_SREG: u16 = 2;
pub const LOOKUP_DREG: u16 = 3;

pub const DYNSET_SET_NAME: u16 = 1;
pub const DYNSET_OP: u16 = 3;
pub const DYNSET_SREG_KEY: u16 = 4;
pub const DYNSET_SREG_DATA: u16 = 5;
pub const DYNSET_TIMEOUT: u16 = 6;
pub const DYNSET_OP_UPDATE: u32 = 1;

pub const PAYLOAD_DREG: u16 = 1;
pub const PAYLOAD_BASE: u16 = 2;
pub const PAYLOAD_OFFSET: u16 = 3;
pub const PAYLOAD_LEN: u16 = 4;

pub const META_DREG: u16 = 1;
pub const META_KEY: u16 = 2;
pub const META_SREG: u16 = 3;

pub const CT_DREG: u16 = 1;
pub const CT_KEY: u16 = 2;

pub const FIB_DREG: u16 = 1;
pub const FIB_RESULT: u16 = 2;
pub const FIB_FLAGS: u16 = 3;
pub const FIB_RESULT_ADDRTYPE: u32 = 3;
pub const FIB_FLAG_SADDR: u32 = 1;
pub const FIB_FLAG_DADDR: u32 = 2;

pub const NAT_TYPE: u16 = 1;
pub const NAT_FAMILY: u16 = 2;
pub const NAT_REG_ADDR_MIN: u16 = 3;
pub const NAT_REG_PROTO_MIN: u16 = 5;
pub const NAT_TYPE_DNAT: u32 = 1;

pub const MASQ_FLAGS: u16 = 1;
/// `NF_NAT_RANGE_PROTO_RANDOM_FULLY`
pub const NAT_RANGE_RANDOM_FULLY: u32 = 1 << 4;

pub const REJECT_TYPE: u16 = 1;
pub const REJECT_ICMP_CODE: u16 = 2;
pub const REJECT_ICMP_UNREACH: u32 = 0;
pub const REJECT_TCP_RESET: u32 = 1;
pub const ICMP_PORT_UNREACH: u8 = 3;
pub const ICMP6_PORT_UNREACH: u8 = 4;

pub const NUMGEN_DREG: u16 = 1;
pub const NUMGEN_MODULUS: u16 = 2;
pub const NUMGEN_TYPE: u16 = 3;
pub const NUMGEN_OFFSET: u16 = 4;
pub const NUMGEN_RANDOM: u32 = 1;
