// Finding groups: steps are read one after another, newest first, until enough groups are found. Opening a run of two
// thousand steps therefore reads one of them.
"use strict";
const ENOUGH = 40;
const AT_ONCE = 4;
const FATES = { any: "was asked", kept: "kept", dropped: "dropped", right: "right", wrong: "wrong" };
const HAS_FATE = {
  any: () => true,
  kept: (answer) => answer[2],
  dropped: (answer) => !answer[2],
  right: (answer) => answer[3],
  wrong: (answer) => !answer[3],
};

// An answer of a summary is [source, reward, kept, right, reason for the drop].
function matches(group, filter) {
  if (filter.task && group.data_source !== filter.task) return false;
  if (filter.outcome && !group.outcomes.includes(filter.outcome)) return false;
  if (filter.row && !String(group.row).includes(filter.row)) return false;
  const fate = HAS_FATE[filter.fate] || HAS_FATE.any;
  return (
    (!filter.source && !filter.fate) ||
    group.answers.some((answer) => (!filter.source || answer[0] === filter.source) && fate(answer))
  );
}

// How many steps to read next: one at first, then as many as seem to be needed.
const stepsFor = (missing, { looked, found }) =>
  looked ? Math.min(AT_ONCE, Math.ceil(missing / Math.max(1, found.length / looked))) : 1;

// {found, looked, done, error, more()}: groups of `steps` (numbers, rising) that match, newest or oldest step first
function useSearch(place, steps, filter) {
  const key = JSON.stringify([place, steps, filter]);
  const [state, set] = useState({});
  const [wanted, setWanted] = useState(ENOUGH);
  useEffect(() => setWanted(ENOUGH), [key]);
  const work = useRef({});
  useEffect(() => {
    let going = true;
    if (work.current.key !== key) work.current = { key, found: [], looked: 0, tasks: work.current.tasks || new Set() };
    const mine = work.current;
    const order = filter.order === "oldest" ? steps : [...steps].reverse();
    const chosen = filter.step ? order.filter((step) => step === Number(filter.step)) : order;
    const show = (error) => {
      const { found, looked, tasks } = mine;
      if (going) set({ key, found: [...found], looked, of: chosen.length, tasks: [...tasks].sort(), error });
    };
    (async () => {
      while (going && mine.looked < chosen.length && mine.found.length < wanted) {
        const next = chosen.slice(mine.looked, mine.looked + stepsFor(wanted - mine.found.length, mine));
        const groups = (await Promise.all(next.map((step) => ask(`runs/${place}/groups/${step}`)))).flat();
        if (!going) return;
        mine.looked += next.length;
        groups.forEach((group) => mine.tasks.add(group.data_source));
        mine.found.push(...groups.filter((group) => matches(group, filter)));
        show();
      }
      show();
    })().catch((error) => show(error.message));
    return () => (going = false);
  }, [key, wanted]);
  const more = useCallback(() => setWanted((now) => now + ENOUGH), []);
  const current = state.key === key ? state : { found: [], looked: 0, of: steps.length, tasks: state.tasks || [] };
  return { ...current, done: current.looked >= current.of, more };
}
