// Object URLs keep their file in memory until they are revoked: each part of the page holds its own and lets them go together.

export class Urls {
  #made = [];

  of(blob) {
    const url = URL.createObjectURL(blob);
    this.#made.push(url);
    return url;
  }

  release() {
    this.#made.forEach((url) => URL.revokeObjectURL(url));
    this.#made = [];
  }
}
