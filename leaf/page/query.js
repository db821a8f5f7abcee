// Filters as chips: each adds a term to the query's text or takes it out.

export const KINDS = ["audio", "video", "image", "document", "archive", "software"];
export const SIZES = [["over 1 MB", ">1MB"], ["over 100 MB", ">100MB"], ["over 1 GB", ">1GB"], ["under 10 MB", "<10MB"]];
export const AGES = [["this week", "<7d"], ["this month", "<30d"], ["this year", "<1y"]];

/** The terms of a query, cut at spaces outside of quotes. */
export const terms = query => query.match(/-?(?:[^\s"]*"[^"]*"?|[^\s"]+)+/g) ?? [];

const isOf = (term, filter) => term.toLowerCase().startsWith(`${filter}:`);

/** The values of a filter that the query names. */
export function values(query, filter) {
  const found = terms(query).filter(term => isOf(term, filter));
  return found.flatMap(term => term.slice(filter.length + 1).split(","));
}

const join = list => list.join(" ").trim();

/** With or without one value of a list such as `kind:audio,video`. */
export function toggleListed(query, filter, value) {
  const had = values(query, filter);
  const now = had.includes(value) ? had.filter(one => one !== value) : [...had, value];
  const rest = terms(query).filter(term => !isOf(term, filter));
  return join(now.length ? [...rest, `${filter}:${now.join(",")}`] : rest);
}

/** With this comparison as the only one of its filter, or without it if it was there. */
export function toggleOnly(query, filter, value) {
  const had = values(query, filter).includes(value);
  const rest = terms(query).filter(term => !isOf(term, filter));
  return join(had ? rest : [...rest, `${filter}:${value}`]);
}
