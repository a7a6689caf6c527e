// Filters of jobs and of dead letters in words: which ones an operation is about.

import { count, meaning, moment, plain, plural, vendorName, words } from "./words.js";

const IN_WORDS = {
  ids: ids => `${ids.length === 1 ? "no." : "nos."} ${ids.join(", ")}`,
  stage: stage => `in ${stage}`,
  state: state => `whose stage is ${words(state)}`,
  status: status => words(status),
  unfinished: () => "not over",
  reason: reason => `because ${meaning(reason)}`,
  error_code: code => `failed because ${meaning(code)}`,
  class: text => `with the error “${plain(text)}”`,
  vendor: vendor => `sent to ${vendorName(vendor)}`,
  job: id => `of job ${id}`,
  user: id => `of user ${id}`,
  user_id: id => `of user ${id}`,
  text: text => `with “${text}” in name or error`,
  since: at => `received since ${moment(at)}`,
  created_from: at => `created since ${moment(at)}`,
  created_before: at => `created before ${moment(at)}`,
  // What a person has not seen is not of the selection.
  upto: to => (typeof to === "number" ? `up to no. ${count(to)}` : `as they were at ${moment(to)}`),
  except: groups => `without ${plural(groups.length, "group")} whose canary died again`,
  closed: () => "closed ones too",
};

/** A filter as the API keeps it. */
export function inWords(filter) {
  const isGiven = value => value !== null && value !== undefined && value !== false && value !== "" && value?.length !== 0;
  // In the order in which people say it, with whatever is new at the end.
  const names = new Set([...Object.keys(IN_WORDS), ...Object.keys(filter ?? {})]);
  const given = [...names].filter(name => isGiven(filter?.[name]));
  if (given.length === 0) return "all";
  return given.map(name => IN_WORDS[name]?.(filter[name]) ?? `${words(name)} ${filter[name]}`).join(", ");
}
