//! A chain that fits in memory: blocks, one EIP-3009 token, and nothing else.
//!
//! It really checks what the token's contract checks, with the reasons the contract gives, and it
//! remembers history, so that a reader may ask about any block. It is deterministic: the same calls
//! at the same times give the same hashes. One block holds at most one transaction; an empty block
//! appears when somebody looks and enough time has passed.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};

use countersign_core::evm::{
    Address, CancelAuthorization, Eip712Domain, Signature65, TransferWithAuthorization, keccak256, recover,
};
use countersign_core::time::Timestamp;

/// Thirty-two bytes that name a block, a transaction, a topic or a nonce.
pub type Hash = [u8; 32];

/// Tells the world what time it is.
pub type Now = Arc<dyn Fn() -> Timestamp + Send + Sync>;

/// Seconds after which an empty block is made, as on Base.
const BLOCK_SECONDS: u64 = 2;

/// Why the token refused, in the words of Circle's `FiatToken`, because facilitators read them.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Revert {
    /// `validAfter` has not passed.
    NotYetValid,
    /// `validBefore` has passed.
    Expired,
    /// The nonce is spent for ever.
    UsedOrCanceled,
    /// Not the owner's signature over this message.
    InvalidSignature,
    /// The payer has less than that.
    InsufficientBalance,
    /// The payee is nobody.
    ZeroAddress,
}

impl Revert {
    /// The contract's reason text.
    #[must_use]
    pub const fn reason(self) -> &'static str {
        match self {
            Self::NotYetValid => "FiatTokenV2: authorization is not yet valid",
            Self::Expired => "FiatTokenV2: authorization is expired",
            Self::UsedOrCanceled => "FiatTokenV2: authorization is used or canceled",
            Self::InvalidSignature => "FiatTokenV2: invalid signature",
            Self::InsufficientBalance => "ERC20: transfer amount exceeds balance",
            Self::ZeroAddress => "ERC20: transfer to the zero address",
        }
    }
}

impl fmt::Display for Revert {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "execution reverted: {}", self.reason())
    }
}

impl std::error::Error for Revert {}

/// An event of the token.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Log {
    /// The event's signature hash, then its indexed fields.
    pub topics: Vec<Hash>,
    /// Its other fields, ABI encoded.
    pub data: Vec<u8>,
}

/// A call of the token that changed something.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Transaction {
    /// Its hash.
    pub hash: Hash,
    /// What it emitted, in order.
    pub logs: Vec<Log>,
}

/// A block.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Block {
    /// Height; the first block is 0.
    pub number: u64,
    /// Seconds since the epoch; never before the parent's.
    pub timestamp: u64,
    /// Its hash.
    pub hash: Hash,
    /// The hash of the block below.
    pub parent: Hash,
    /// What happened in it.
    pub transaction: Option<Transaction>,
}

/// A handle on the chain; clones are the same chain.
#[derive(Clone)]
pub struct Chain {
    shared: Arc<Shared>,
}

struct Shared {
    token: Eip712Domain,
    now: Now,
    finality_lag: AtomicU64,
    state: Mutex<State>,
}

struct State {
    /// Never empty: `head` is the last of them.
    blocks: Vec<Arc<Block>>,
    head: Arc<Block>,
    block_of: BTreeMap<Hash, Arc<Block>>,
    /// Every balance an address ever had, with the height it dates from.
    balances: BTreeMap<Address, Vec<(u64, u128)>>,
    /// The height at which a nonce was used or cancelled.
    spent: BTreeMap<(Address, Hash), u64>,
}

impl Chain {
    /// A chain with its first block, holding the token whose EIP-712 domain this is.
    #[must_use]
    pub fn new(token: Eip712Domain, now: Now) -> Self {
        let genesis = Arc::new(seal(0, now().as_secs(), [0; 32], token.chain_id, None));
        let state = State {
            blocks: vec![genesis.clone()],
            block_of: BTreeMap::from([(genesis.hash, genesis.clone())]),
            head: genesis,
            balances: BTreeMap::new(),
            spent: BTreeMap::new(),
        };
        let (finality_lag, state) = (AtomicU64::new(0), Mutex::new(state));
        Self { shared: Arc::new(Shared { token, now, finality_lag, state }) }
    }

    /// The token's EIP-712 domain: its name, version, chain and address.
    #[must_use]
    pub fn token(&self) -> &Eip712Domain {
        &self.shared.token
    }

    /// What time it is.
    #[must_use]
    pub fn now(&self) -> Timestamp {
        (self.shared.now)()
    }

    /// Makes `finalized` and `safe` trail the head by so many blocks; by default they are the head.
    pub fn set_finality_lag(&self, blocks: u64) {
        self.shared.finality_lag.store(blocks, Ordering::Relaxed);
    }

    /// Creates money.
    pub fn mint(&self, to: Address, value: u128) -> Hash {
        let mut state = self.lock();
        let height = state.next_height();
        state.credit(to, value, height);
        let log = transfer_log(Address::new([0; 20]), to, value);
        self.include(&mut state, &[b"mint", to.as_bytes(), &value.to_be_bytes()], vec![log])
    }

    /// What `owner` has now.
    #[must_use]
    pub fn balance(&self, owner: Address) -> u128 {
        self.lock().balance(owner, u64::MAX)
    }

    /// What `owner` had at the end of a block.
    #[must_use]
    pub fn balance_at(&self, owner: Address, height: u64) -> u128 {
        self.lock().balance(owner, height)
    }

    /// Whether a nonce was used or cancelled by now.
    #[must_use]
    pub fn authorization_state(&self, authorizer: Address, nonce: &Hash) -> bool {
        self.authorization_state_at(authorizer, nonce, u64::MAX)
    }

    /// Whether a nonce was used or cancelled by the end of a block.
    #[must_use]
    pub fn authorization_state_at(&self, authorizer: Address, nonce: &Hash, height: u64) -> bool {
        self.lock().spent.get(&(authorizer, *nonce)).is_some_and(|spent| *spent <= height)
    }

    /// Whether the transfer would succeed in the next block.
    ///
    /// # Errors
    /// As [`Chain::transfer_with_authorization`].
    pub fn simulate(&self, message: &TransferWithAuthorization, signature: &Signature65) -> Result<(), Revert> {
        self.check(&self.lock(), message, signature)
    }

    /// EIP-3009: moves exactly the signed value, once; returns the transaction's hash.
    ///
    /// # Errors
    /// What the contract would refuse; nothing happened then, as a sender who simulates first would
    /// not have sent it.
    pub fn transfer_with_authorization(
        &self,
        message: &TransferWithAuthorization,
        signature: &Signature65,
    ) -> Result<Hash, Revert> {
        let mut state = self.lock();
        self.check(&state, message, signature)?;
        let height = state.next_height();
        let (from, to, value) = (message.from, message.to, message.value.get());
        state.spent.insert((from, message.nonce), height);
        state.debit(from, value, height);
        state.credit(to, value, height);
        let used = event("AuthorizationUsed(address,bytes32)", vec![padded(from), message.nonce], Vec::new());
        let logs = vec![used, transfer_log(from, to, value)];
        let call: [&[u8]; 3] = [b"transfer", &message.struct_hash(), signature.as_bytes()];
        Ok(self.include(&mut state, &call, logs))
    }

    /// EIP-3009: spends a nonce without paying; returns the transaction's hash.
    ///
    /// # Errors
    /// [`Revert::UsedOrCanceled`] or [`Revert::InvalidSignature`].
    pub fn cancel_authorization(&self, message: &CancelAuthorization, signature: &Signature65) -> Result<Hash, Revert> {
        let mut state = self.lock();
        let CancelAuthorization { authorizer, nonce } = *message;
        if state.spent.contains_key(&(authorizer, nonce)) {
            return Err(Revert::UsedOrCanceled);
        }
        if recover(&message.digest(&self.shared.token), signature) != Some(authorizer) {
            return Err(Revert::InvalidSignature);
        }
        let height = state.next_height();
        state.spent.insert((authorizer, nonce), height);
        let log = event("AuthorizationCanceled(address,bytes32)", vec![padded(authorizer), nonce], Vec::new());
        let call: [&[u8]; 3] = [b"cancel", &message.struct_hash(), signature.as_bytes()];
        Ok(self.include(&mut state, &call, vec![log]))
    }

    /// Moves money without an authorization, as its owner does with a transaction of his own; returns its hash.
    ///
    /// # Errors
    /// [`Revert::InsufficientBalance`].
    pub fn transfer(&self, from: Address, to: Address, value: u128) -> Result<Hash, Revert> {
        let mut state = self.lock();
        if state.balance(from, u64::MAX) < value {
            return Err(Revert::InsufficientBalance);
        }
        let height = state.next_height();
        state.debit(from, value, height);
        state.credit(to, value, height);
        let log = transfer_log(from, to, value);
        Ok(self.include(&mut state, &[b"send", from.as_bytes(), to.as_bytes(), &value.to_be_bytes()], vec![log]))
    }

    /// What no honest token does: uses a nonce for a transfer that its owner did not sign; returns the
    /// transaction's hash.
    pub fn redeem_wrongly(&self, from: Address, nonce: Hash, to: Address, value: u128) -> Hash {
        let mut state = self.lock();
        let height = state.next_height();
        state.spent.insert((from, nonce), height);
        state.debit(from, value, height);
        state.credit(to, value, height);
        let used = event("AuthorizationUsed(address,bytes32)", vec![padded(from), nonce], Vec::new());
        let logs = vec![used, transfer_log(from, to, value)];
        self.include(&mut state, &[b"wrong", &nonce, to.as_bytes(), &value.to_be_bytes()], logs)
    }

    /// Adds an empty block now.
    pub fn mine(&self) -> Arc<Block> {
        self.mine_at(0)
    }

    /// Adds an empty block whose time is no earlier than this one, which may be ahead of the clock. The blocks
    /// after it are not older.
    pub fn mine_at(&self, timestamp: u64) -> Arc<Block> {
        let mut state = self.lock();
        let at = self.next_timestamp(&state).max(timestamp);
        self.extend_at(&mut state, at, None)
    }

    /// Undoes every block above a height, as a reorganisation does: money goes back, nonces are unused again.
    pub fn reorganise(&self, height: u64) {
        let mut state = self.lock();
        let state = &mut *state;
        let keep = usize::try_from(height).unwrap_or(usize::MAX).saturating_add(1).min(state.blocks.len());
        for block in state.blocks.split_off(keep) {
            state.block_of.remove(&block.hash);
            if let Some(transaction) = &block.transaction {
                state.block_of.remove(&transaction.hash);
            }
        }
        if let Some(last) = state.blocks.last() {
            state.head = Arc::clone(last);
        }
        state.spent.retain(|_, spent| *spent <= height);
        for history in state.balances.values_mut() {
            history.retain(|(since, _)| *since <= height);
        }
    }

    /// The newest block.
    #[must_use]
    pub fn head(&self) -> Arc<Block> {
        self.caught_up().head.clone()
    }

    /// The newest block that will never be undone.
    #[must_use]
    pub fn finalized(&self) -> Arc<Block> {
        let state = self.caught_up();
        let lag = self.shared.finality_lag.load(Ordering::Relaxed);
        let height = state.head.number.saturating_sub(lag);
        state.block(height).unwrap_or_else(|| state.head.clone())
    }

    /// The block at a height.
    #[must_use]
    pub fn block(&self, height: u64) -> Option<Arc<Block>> {
        self.caught_up().block(height)
    }

    /// The block with this hash, or the block that holds the transaction with this hash.
    #[must_use]
    pub fn block_with(&self, hash: &Hash) -> Option<Arc<Block>> {
        self.lock().block_of.get(hash).cloned()
    }

    /// The contract's checks, in the contract's order.
    fn check(&self, state: &State, message: &TransferWithAuthorization, signature: &Signature65) -> Result<(), Revert> {
        let at = self.next_timestamp(state);
        if at <= message.valid_after {
            return Err(Revert::NotYetValid);
        }
        if at >= message.valid_before {
            return Err(Revert::Expired);
        }
        if state.spent.contains_key(&(message.from, message.nonce)) {
            return Err(Revert::UsedOrCanceled);
        }
        if recover(&message.digest(&self.shared.token), signature) != Some(message.from) {
            return Err(Revert::InvalidSignature);
        }
        if message.to.is_zero() {
            return Err(Revert::ZeroAddress);
        }
        if state.balance(message.from, u64::MAX) < message.value.get() {
            return Err(Revert::InsufficientBalance);
        }
        Ok(())
    }

    /// Puts a transaction into a block of its own.
    fn include(&self, state: &mut State, call: &[&[u8]], logs: Vec<Log>) -> Hash {
        let mut preimage = state.next_height().to_be_bytes().to_vec();
        preimage.extend(padded(self.shared.token.verifying_contract));
        preimage.extend(call.concat());
        let hash = keccak256(&preimage);
        let block = self.extend(state, Some(Transaction { hash, logs }));
        state.block_of.insert(hash, block);
        hash
    }

    fn extend(&self, state: &mut State, transaction: Option<Transaction>) -> Arc<Block> {
        let at = self.next_timestamp(state);
        self.extend_at(state, at, transaction)
    }

    fn extend_at(&self, state: &mut State, at: u64, transaction: Option<Transaction>) -> Arc<Block> {
        let height = state.next_height();
        let block = Arc::new(seal(height, at, state.head.hash, self.shared.token.chain_id, transaction));
        state.blocks.push(block.clone());
        state.block_of.insert(block.hash, block.clone());
        state.head = block.clone();
        block
    }

    fn next_timestamp(&self, state: &State) -> u64 {
        self.now().as_secs().max(state.head.timestamp)
    }

    fn caught_up(&self) -> MutexGuard<'_, State> {
        let mut state = self.lock();
        if self.next_timestamp(&state) >= state.head.timestamp.saturating_add(BLOCK_SECONDS) {
            self.extend(&mut state, None);
        }
        state
    }

    /// No code between lock and unlock can leave the state half changed, so a poisoned lock is fine.
    fn lock(&self) -> MutexGuard<'_, State> {
        self.shared.state.lock().unwrap_or_else(PoisonError::into_inner)
    }
}

impl State {
    fn next_height(&self) -> u64 {
        self.head.number.saturating_add(1)
    }

    fn block(&self, height: u64) -> Option<Arc<Block>> {
        self.blocks.get(usize::try_from(height).ok()?).cloned()
    }

    fn balance(&self, owner: Address, height: u64) -> u128 {
        let history = self.balances.get(&owner).map_or(&[][..], Vec::as_slice);
        history.iter().rev().find(|(since, _)| *since <= height).map_or(0, |(_, value)| *value)
    }

    fn credit(&mut self, owner: Address, value: u128, height: u64) {
        let after = self.balance(owner, u64::MAX).saturating_add(value);
        self.balances.entry(owner).or_default().push((height, after));
    }

    fn debit(&mut self, owner: Address, value: u128, height: u64) {
        let after = self.balance(owner, u64::MAX).saturating_sub(value);
        self.balances.entry(owner).or_default().push((height, after));
    }
}

/// An address or number in the 32 bytes of an ABI word.
pub(super) fn padded(address: Address) -> Hash {
    let mut word = [0; 32];
    let (_, low) = word.split_at_mut(12);
    low.copy_from_slice(address.as_bytes());
    word
}

/// A number in the 32 bytes of an ABI word.
pub(super) fn word(number: u128) -> Hash {
    countersign_core::money::Atomic::new(number).to_be_bytes32()
}

fn transfer_log(from: Address, to: Address, value: u128) -> Log {
    let parties = vec![padded(from), padded(to)];
    event("Transfer(address,address,uint256)", parties, word(value).to_vec())
}

fn event(signature: &str, indexed: Vec<Hash>, data: Vec<u8>) -> Log {
    let mut topics = vec![keccak256(signature.as_bytes())];
    topics.extend(indexed);
    Log { topics, data }
}

fn seal(number: u64, timestamp: u64, parent: Hash, chain_id: u64, transaction: Option<Transaction>) -> Block {
    let body = transaction.as_ref().map_or([0; 32], |transaction| transaction.hash);
    let header = [parent, body, word(number.into()), word(timestamp.into()), word(chain_id.into())];
    let hash = keccak256(header.as_flattened());
    Block { number, timestamp, hash, parent, transaction }
}
