// What a browser does on the pages that sign people in, and on those where they enrol passkeys.
//
// A button with data-passkey-button, hidden until a browser can use passkeys, begins a ceremony:
//   data-options   where the options come from; data-step is sent along
//   data-create    a passkey is made; without it, one is used
//   data-send      where the answer is sent as JSON, which says where to go; without it, the
//                  answer goes into the field "credential" of the button's form, which is sent
//   data-continue  where the form is sent instead if it has something that was kept
// A form with data-passkey-create, the address of the options, has a passkey made before it is
// sent, for its field "credential".
// A form with data-passkey-conditional offers passkeys among what the browser fills in.
// The element data-passkey-status of the form has the words (page.PasskeyStatus).
// A form with data-recover takes the token of a link.
'use strict';
(() => {
  const supported = window.PublicKeyCredential && navigator.credentials &&
    PublicKeyCredential.parseRequestOptionsFromJSON && PublicKeyCredential.parseCreationOptionsFromJSON;
  let waiting = null; // the AbortController of the ceremony that the browser offers meanwhile

  class Refused extends Error {}

  async function post(path, body) {
    const answer = await fetch(path, {
      method: 'POST', headers: {'Content-Type': 'application/json'}, body: JSON.stringify(body), cache: 'no-store',
    });
    const json = await answer.json().catch(() => ({}));
    if (!answer.ok) throw new Refused(json.message || '');
    return json;
  }

  // ceremony returns what the browser's authenticator answers.
  async function ceremony(create, options, body, more) {
    const {publicKey} = await post(options, body);
    const credential = create
      ? await navigator.credentials.create({...more, publicKey: PublicKeyCredential.parseCreationOptionsFromJSON(publicKey)})
      : await navigator.credentials.get({...more, publicKey: PublicKeyCredential.parseRequestOptionsFromJSON(publicKey)});
    return credential.toJSON();
  }

  function ofButton(button, more) {
    const {options, step} = button.dataset;
    return ceremony('create' in button.dataset, options, step === undefined ? {} : {step}, more);
  }

  function fill(form, credential) {
    form.elements.credential.value = JSON.stringify(credential);
    form.submit();
  }

  async function finish(button, credential) {
    const form = button.form;
    if (!button.dataset.send) {
      fill(form, credential);
      return;
    }
    const {location: to} = await post(button.dataset.send, {credential, return: form.elements.return.value});
    if (form.elements.kept && button.dataset.continue) {
      for (const field of form.querySelectorAll('input')) {
        if (field.name !== 'kept' && field.name !== 'return') field.disabled = true;
      }
      form.action = button.dataset.continue;
      form.submit();
      return;
    }
    location.assign(to);
  }

  const statusOf = (form) => form.querySelector('[data-passkey-status]');

  function failed(form, err) {
    const status = statusOf(form);
    const {dataset} = status;
    const cancelled = err.name === 'NotAllowedError' || err.name === 'AbortError';
    status.textContent = err instanceof Refused && err.message || (cancelled ? dataset.cancelled : dataset.failed);
  }

  // present finishes with the credential of a ceremony that goes on.
  async function present(button, coming) {
    const status = statusOf(button.form);
    button.disabled = true;
    status.textContent = status.dataset.waiting;
    try {
      await finish(button, await coming);
    } catch (err) {
      failed(button.form, err);
      button.disabled = false;
    }
  }

  function press(button) {
    waiting?.abort();
    waiting = null;
    present(button, ofButton(button, {}));
  }

  // The options of a ceremony are good for five minutes.
  const again = 4 * 60 * 1000;

  // seen waits until somebody can see the page.
  async function seen() {
    while (document.hidden) await new Promise((go) => document.addEventListener('visibilitychange', go, {once: true}));
  }

  // conditional has the browser offer passkeys in the field of the username, for as long as the
  // page is open. One that nobody sees asks for nothing.
  async function conditional(button) {
    if (!await PublicKeyCredential.isConditionalMediationAvailable?.()) return;
    for (;;) {
      await seen();
      const mine = waiting = new AbortController();
      const timer = setTimeout(() => mine.abort(), again);
      let credential;
      try {
        credential = await ofButton(button, {mediation: 'conditional', signal: mine.signal});
      } catch {
        if (mine.signal.aborted && waiting === mine) continue; // the options were too old
        return; // the button was pressed, or this browser has none to offer
      } finally {
        clearTimeout(timer);
      }
      waiting = null;
      present(button, credential);
      return;
    }
  }

  for (const button of document.querySelectorAll('[data-passkey-button]')) {
    if (!supported) {
      statusOf(button.form).textContent = statusOf(button.form).dataset.unsupported;
      continue;
    }
    button.hidden = false;
    button.addEventListener('click', () => press(button));
    if ('passkeyConditional' in button.form.dataset) conditional(button);
  }

  for (const form of document.querySelectorAll('form[data-passkey-create]')) {
    form.addEventListener('submit', async (event) => {
      event.preventDefault();
      const status = statusOf(form);
      if (!supported) {
        status.textContent = status.dataset.unsupported;
        return;
      }
      if (form.dataset.busy) return;
      form.dataset.busy = 'yes';
      status.textContent = status.dataset.waiting;
      try {
        fill(form, await ceremony(true, form.dataset.passkeyCreate, {}, {}));
      } catch (err) {
        failed(form, err);
      } finally {
        delete form.dataset.busy;
      }
    });
  }

  // A link has its token in the fragment, which is sent to no server. It leaves the address at
  // once, and is kept until the password has been changed, or the tab is closed.
  // A browser that refuses cookies refuses the storage as well.
  const key = 'recovery-token';
  const stored = (use) => { try { return use(sessionStorage); } catch { return null; } };
  const recover = document.querySelector('form[data-recover]');
  if (recover) {
    const field = recover.elements.recovery_token;
    const token = new URLSearchParams(location.hash.slice(1)).get('token');
    if (token) {
      field.value = token;
      stored((s) => s.setItem(key, token));
      history.replaceState(null, '', location.pathname + location.search);
    }
    field.value ||= stored((s) => s.getItem(key)) || '';
    if (field.value) recover.elements.new_password.focus();
  } else {
    stored((s) => s.removeItem(key));
  }
})();
