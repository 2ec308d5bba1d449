// Pushes files to a Hub, reads them back in every way that @huggingface/hub has, and prints what it
// saw as JSON: node client.mjs ENDPOINT TOKEN REPO FOLDER xet|lfs
import { readFileSync, readdirSync } from "node:fs";
import { createHash } from "node:crypto";
import { join } from "node:path";
import {
  commit,
  createBranch,
  createRepo,
  downloadFile,
  fileExists,
  listCommits,
  listFiles,
  modelInfo,
  pathsInfo,
  whoAmI,
} from "@huggingface/hub";

const [hubUrl, accessToken, name, folder, transfer] = process.argv.slice(2);
const repo = { type: "model", name };
const at = { hubUrl, accessToken, repo };

const sha256 = async (blob) =>
  createHash("sha256").update(Buffer.from(await blob.arrayBuffer())).digest("hex");

const refusal = async (promise) => {
  try {
    await promise;
    return null;
  } catch (error) {
    return error.statusCode ?? String(error);
  }
};

const collect = async (iterator) => {
  const found = [];
  for await (const one of iterator) found.push(one);
  return found;
};

const files = readdirSync(folder).sort();
const operations = files.map((path) => ({
  operation: "addOrUpdate",
  path: `in a folder/${path}`,
  content: new Blob([readFileSync(join(folder, path))]),
}));

const seen = { user: (await whoAmI(at)).name };
await createRepo({ ...at, private: true });
seen.again = await refusal(createRepo({ ...at, private: true }));
seen.stranger = await refusal(modelInfo({ name, hubUrl }));
const [first] = await collect(listCommits(at));
await createBranch({ ...at, branch: "push" });
const pushed = await commit({
  ...at,
  operations,
  title: "pushed",
  branch: "push",
  parentCommit: first.oid,
  useXet: transfer === "xet",
});
seen.pushed = pushed.commit.oid;
seen.stale = await refusal(
  commit({ ...at, operations: [], title: "stale", branch: "push", parentCommit: first.oid }),
);
seen.proposed = (
  await commit({
    ...at,
    operations: [{ operation: "delete", path: ".gitattributes" }],
    title: "proposed",
    isPullRequest: true,
  })
).pullRequestUrl;
await createBranch({ ...at, branch: "main", revision: "push", overwrite: true });
seen.main = (await collect(listCommits(at)))[0].oid;
seen.private = (await modelInfo({ name, hubUrl, accessToken })).private;
seen.listed = {};
for (const one of await collect(listFiles({ ...at, recursive: true }))) {
  if (one.type === "file") seen.listed[one.path] = one.lfs?.oid ?? null;
}
seen.infos = (await pathsInfo({ ...at, paths: ["in a folder", "absent"] })).map((one) => one.type);
seen.there = await fileExists({ ...at, path: `in a folder/${files[0]}` });
seen.absent = await downloadFile({ ...at, path: "absent" });
seen.downloaded = {};
for (const path of files) {
  const blob = await downloadFile({ ...at, path: `in a folder/${path}` });
  seen.downloaded[path] = await sha256(blob);
  if (blob.size > 100) seen.slice = (await blob.slice(10, 20).arrayBuffer()).byteLength;
}
console.log(JSON.stringify(seen));
